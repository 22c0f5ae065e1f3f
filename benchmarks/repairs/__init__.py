"""``vgaudit fix`` on the sick models of the detection suite."""
