"""What methods are made of.

algorithm     the interface of every method and its gradient step
nets          networks that carry the seeds' axis
mixers        team values from agents' values
flow          flow matching, Euler integration, actions as points
diffusion     noise schedules and denoising chains
unet          the planners' temporal U-Net
planner       what MADiff and DoF share
gaussian      squashed normal policies
normalise     the planners' normalisers
returns       discounted returns-to-go
cuda_graphs   a step captured and replayed
"""
