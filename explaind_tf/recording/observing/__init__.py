"""Observers of a training step: each sees what only it can see, and none changes a number.

- The tap sits in the input pipeline. It queues the batches that training draws.
- The optimizer's ring buffers are written within the compiled step. They hold what an update used and its result.
- The data check runs once, when Keras traces the step. It compares the step's data with those of the tap.

They share no interface, since the pipeline, the compiled step and tracing call them. The observer puts
together the outcome of a step, and the checks compare the first step with it.
"""
