package segment

import "io"

// Without writes a segment of a size without the frames of some sessions. What is no frame is kept as it is.
func Without(w io.Writer, from io.ReaderAt, size int64, number uint32, gone map[string]bool) error {
	frames, _, _, err := Scan(from, size, number, 0, false)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, f := range frames {
		if !gone[f.Session] {
			continue
		}
		if _, err := io.Copy(w, io.NewSectionReader(from, at, int64(f.Offset)-int64(FrameHead)-at)); err != nil {
			return err
		}
		at = int64(f.Offset) + int64(f.Size)
	}
	_, err = io.Copy(w, io.NewSectionReader(from, at, size-at))
	return err
}
