package journal

func child(dir string) {}
