"""Cosmos-Transfer2.5 multiview: several cameras at once, from control videos and a prompt."""
