"""Label-free adaptation on the device, in three levels, behind a guard."""
