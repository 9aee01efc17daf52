"""What a run will need before anything is rented: memory, operations, traffic, days; and how large a budget reaches."""
