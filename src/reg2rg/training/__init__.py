"""Lightning around the model: steps, callbacks, optimiser, checkpoints, predictions. Read `module` first."""
