"""Estimates of what a run needs, made before it starts and without its weights.

Modules:

    forecast          recipe to forecast
    workload          rows that the recipe trains on
    rows              a row and the batch it becomes
    step              a training step and its memory, on real or fake tensors
    memory_tracker    live bytes by category
    workspace         memory used inside an operation
    flops             floating-point operations
    concrete_tensors  index tensors that stay real in fake mode
    gpu_emulation     GPU behavior on fake CPU tensors
    gpus              GPUs by memory, and the margin
    adjustments       settings that save memory
    render            forecast to tables and JSON
"""
