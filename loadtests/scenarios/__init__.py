"""One page a scenario: what is asked of the gateway, and what has to hold. See `loadtests/stage.py`."""
