"""The contract: what every method promises. pytest runs it on the methods of the registry, `offmarl validate` on one.

It installs as `offmarl.contract`, so that `offmarl validate` needs no clone.

test_settings   facts, settings and their variants
test_training   updates, seeds, saving and loading
test_acting     actions, masks, noise, agents on their own
test_graphs     what capture by a CUDA graph needs
fixtures        cases, tasks and batches that these share
"""
