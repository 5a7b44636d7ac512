"""Observers of a training step: each sees what only it can see, and none changes a number.

- The watched step sees the data of each training step, where the step receives them.
- The tap sits in the input pipeline. It notes the ids of samples.
- The optimizer's ring buffers are written within the compiled step. They hold what an update used and its result.

They share no interface, since the pipeline, the compiled step and tracing call them. The observer puts
together the outcome of a step, and the checks compare the first step with it.
"""
