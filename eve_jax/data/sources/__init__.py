"""Where records come from: one small interface (`base.Source`) and a module for each kind of file."""
