"""The paper's tables, each as commands: what trains, what measures, what is set beside."""
