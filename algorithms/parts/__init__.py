"""What methods are built from.

algorithm     the interface of every method, and its gradient step
batch         task sizes, datasets and batches
config        settings that every method has, and how a method declares its own
streams       random generators, one per seed
nets          networks with the seed axis
mixers        team values from agents' values
flow          flow matching, Euler integration, actions as points of a flow
diffusion     noise schedules and denoising chains
unet          the temporal U-Net of the planners
planner       what MADiff and DoF share
recurrent     what the recurrent methods share
gaussian      squashed Gaussian policies
normalise     the planners' normalisation of observations and actions
returns       discounted returns-to-go
"""
