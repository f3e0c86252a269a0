"""The demo: the whole loop on a real small model. It speaks to the gateway and the trainer as a user would."""
