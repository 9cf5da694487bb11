"""How answers are read: shared by the tasks, each rule once."""
