"""Bystanders of a training step, each of what only it can see; none changes a number.

- The tap sits in the input pipeline: it queues the batches that training draws.
- The optimizer's ring buffers are written within the compiled step: what an update used, and led to.
- The look at the data happens once, when Keras traces the step: whether it gets what the tap delivers.

They have no interface in common, for they are called by the pipeline, by the compiled step and by tracing. The observer puts
together what a step led to, and the checks hold the first step against it.
"""
