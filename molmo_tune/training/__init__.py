"""Training: Lightning modules, callbacks and the composition root `run.train`.

Phases, in order:

    run                          supervised training: the phases below, one after the other
    preference/run_preference    preference training: the same with pairs in between
    run_start                    the seed; a new run or a resumed one
    read_data                    labels to items, before a model is loaded
    prepare_model                base, attention backend, adapters, checkpointing, feature cache
    setup_lines                  what is printed before training
    preference/pairing           answers to pairs, or pairs of a resumed run
    open_run                     what the run folder contains before training
    fit                          the trainer and its callbacks
    run_report                   metrics.csv and report.json

Where it is decided …

    trainer              settings of Lightning's Trainer
    precision            `auto` precision and attention
    molmo_module         loss of an optimizer step; contents of a checkpoint
    optimizers           optimizer, learning rate and weight decay per component
    schedule             learning rate per step
    gradient_clipping    norm of each component
    checkpoints          when to save, and where to resume from
    random_state         which generators a resumed run restores
    batches/             batches, their order, and the position that a checkpoint keeps
    preference/          reference log-probabilities, loss and metrics of pairs
    callbacks/           saving, recording, evaluating, refusing, progress
    fsdp                 how weights are sharded
    processes            which process writes; sums over processes
    quiet_libraries      which notices of libraries are hidden
"""
