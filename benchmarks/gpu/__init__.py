"""What CUDA does to the trainings: right, how fast, how many side by side; one script of minutes and one file of bars."""
