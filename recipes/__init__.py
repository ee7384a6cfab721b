"""What makes one run train differently from another: recipe files, algorithms, optimizers, schedules."""
