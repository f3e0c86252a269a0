"""What drives a running gateway from outside, over HTTP only: the demo, and later the load tests."""
