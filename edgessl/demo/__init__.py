"""The whole product on a simulated drive, in minutes: an encoder is made, shipped, loses its way at night, and finds it."""
