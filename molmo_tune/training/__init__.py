"""Training: Lightning modules, callbacks and the composition root `run.train`.

Phases, in order:

    run                  supervised training: the phases below, one after the other
    run_preference       preference training: the same with pairs in between
    run_start            the seed; a new run or a resumed one
    read_data            labels to items, before a model is loaded
    prepare_model        base, attention backend, adapters, gradient checkpointing, feature cache
    setup_lines          what is printed before training
    pairing              answers to pairs, or pairs of a resumed run
    reference_log_probs  the reference's log-probabilities
    open_run             what the run folder contains before training
    fit                  the trainer and its callbacks
    run_report           metrics.csv and report.json

Where it is decided …

    trainer              settings of Lightning's Trainer
    precision            `auto` precision and attention
    molmo_module         loss of an optimizer step; contents of a checkpoint
    preference_module    loss and metrics of pairs
    optimizers           optimizer, learning rate and weight decay per component
    schedule             learning rate per step
    gradient_clipping    norm of each component
    data_module          batches, and the position that a checkpoint keeps
    batch_stream         items of batch k, without packing
    pack_stream          packs of batch k
    checkpoints          when to save, and where to resume from
    random_state         which generators a resumed run restores
    fsdp                 how weights are sharded
    processes            which process writes; sums over processes

Callbacks:

    save_adapter         write the adapter
    dead_adapters        refuse adapters without gradients
    answer_evaluation    generate and score answers during training
    media_monitor        unreadable media and cache hits
    step_metrics         losses and metrics by step
    data_wait            time spent waiting for data
    pack_fill            how full packs are
    progress             the progress line
    quiet_libraries      which notices of libraries are hidden
"""
