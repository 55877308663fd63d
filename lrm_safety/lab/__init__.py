"""What is done around a run: analyses, reward models, plans, studies, reports. Nothing of it is needed to train."""
