"""What a run is going to do and to need, worked out from its settings alone: of the run itself, and for more ranks than can be tried."""
