"""Tables, figures and statistics: a pure function of the results store; README.md has the map.

Nothing here imports torch, jax, ray or another part of offmarl: a report needs the store and no more.
"""
