"""From requests to finished files: plan, run, resume, show."""
