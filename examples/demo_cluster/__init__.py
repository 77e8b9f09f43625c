"""A store on several servers, one of which is killed."""
