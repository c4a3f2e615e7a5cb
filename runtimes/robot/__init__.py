"""In a robot: one node around an encoder, for dora, ROS 2 and Zenoh."""
