// Package archive writes and reads the stream that `mongodump --archive` makes:
//
//	magic, header, one document per collection, terminator, then blocks
//	block:  header {db, collection, EOF, CRC}, documents, terminator
//
// A collection's documents may be spread over many blocks, mixed with those of others. A block with EOF set ends the
// collection and carries the CRC-64 (ECMA, reflected) of all of its documents. Nothing marks the end of the whole.
package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"sync"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const (
	magic      = 0x8199e26d
	terminator = 0xffffffff
	smallest   = 5
	largest    = 16<<20 + 16<<10

	// The original holds 16 MiB per collection before it writes a block; less makes blocks mix in small tests too.
	blockSize = 1 << 20
)

// FormatVersion is the only one there is.
const FormatVersion = "0.1"

var polynomial = crc64.MakeTable(crc64.ECMA)

// Header is the first document.
type Header struct {
	ConcurrentCollections int32  `bson:"concurrent_collections"`
	FormatVersion         string `bson:"version"`
	ServerVersion         string `bson:"server_version"`
	ToolVersion           string `bson:"tool_version"`
}

// Collection announces a collection; Metadata is canonical Extended JSON with its options and indexes.
type Collection struct {
	DB         string `bson:"db"`
	Collection string `bson:"collection"`
	Metadata   string `bson:"metadata"`
	Size       int32  `bson:"size"`
	Type       string `bson:"type"`
}

// Namespace is `db.collection`.
func (c Collection) Namespace() string { return c.DB + "." + c.Collection }

type blockHeader struct {
	DB         string `bson:"db"`
	Collection string `bson:"collection"`
	EOF        bool   `bson:"EOF"`
	CRC        int64  `bson:"CRC"`
}

// Writer mixes the documents of several collections into one stream.
type Writer struct {
	mutex sync.Mutex
	out   *bufio.Writer
	open  string
}

// NewWriter writes everything that comes before the blocks.
func NewWriter(out io.Writer, header Header, collections []Collection) (*Writer, error) {
	w := &Writer{out: bufio.NewWriterSize(out, 64<<10)}
	if err := w.number(magic); err != nil {
		return nil, err
	}
	if err := w.document(header); err != nil {
		return nil, err
	}
	for _, collection := range collections {
		if err := w.document(collection); err != nil {
			return nil, err
		}
	}
	return w, w.number(terminator)
}

func (w *Writer) number(n uint32) error {
	return binary.Write(w.out, binary.LittleEndian, n)
}

func (w *Writer) document(value any) error {
	bytes, err := bson.Marshal(value)
	if err != nil {
		return err
	}
	_, err = w.out.Write(bytes)
	return err
}

func (w *Writer) closeBlock() error {
	if w.open == "" {
		return nil
	}
	w.open = ""
	return w.number(terminator)
}

// Flush hands everything on; call it when all streams are closed.
func (w *Writer) Flush() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.out.Flush()
}

// Stream takes the documents of one collection.
type Stream struct {
	writer     *Writer
	collection Collection
	held       []byte
	sum        hash.Hash64
}

// Stream begins a collection that was announced to NewWriter.
func (w *Writer) Stream(collection Collection) *Stream {
	return &Stream{writer: w, collection: collection, sum: crc64.New(polynomial)}
}

// Write takes one document.
func (s *Stream) Write(document []byte) error {
	if len(s.held)+len(document) > blockSize && len(s.held) > 0 {
		if err := s.block(); err != nil {
			return err
		}
	}
	s.held = append(s.held, document...)
	s.sum.Write(document)
	return nil
}

func (s *Stream) block() error {
	w := s.writer
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if namespace := s.collection.Namespace(); w.open != namespace {
		if err := w.closeBlock(); err != nil {
			return err
		}
		if err := w.document(blockHeader{DB: s.collection.DB, Collection: s.collection.Collection}); err != nil {
			return err
		}
		w.open = namespace
	}
	_, err := w.out.Write(s.held)
	s.held = s.held[:0]
	return err
}

// Close ends the collection with its checksum. The original does so for a collection that it could not read to its
// end as well, and so its archive looks whole: only the exit code tells.
func (s *Stream) Close() error {
	if err := s.block(); err != nil {
		return err
	}
	w := s.writer
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err := w.closeBlock(); err != nil {
		return err
	}
	end := blockHeader{DB: s.collection.DB, Collection: s.collection.Collection, EOF: true, CRC: int64(s.sum.Sum64())}
	if err := w.document(end); err != nil {
		return err
	}
	return w.number(terminator)
}

// Reader reads an archive from its beginning.
type Reader struct {
	Header      Header
	Collections []Collection

	in   *bufio.Reader
	sums map[string]hash.Hash64
	done map[string]bool
}

// NewReader reads everything that comes before the blocks.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10), sums: map[string]hash.Hash64{}, done: map[string]bool{}}
	var begin [4]byte
	if _, err := io.ReadFull(r.in, begin[:]); err != nil {
		return nil, fmt.Errorf("I/O failure reading beginning of archive: %w", err)
	}
	if binary.LittleEndian.Uint32(begin[:]) != magic {
		return nil, errors.New("stream or file does not appear to be a mongodump archive")
	}
	document, err := r.next()
	if err != nil {
		return nil, cut(err)
	}
	if document == nil {
		return nil, errors.New("corruption found in archive; it has no header")
	}
	if err := bson.Unmarshal(document, &r.Header); err != nil {
		return nil, err
	}
	for {
		document, err := r.next()
		if err != nil {
			return nil, cut(err)
		}
		if document == nil {
			return r, nil
		}
		var collection Collection
		if err := bson.Unmarshal(document, &collection); err != nil {
			return nil, fmt.Errorf("corruption found in archive; %w", err)
		}
		r.Collections = append(r.Collections, collection)
	}
}

// next gives a document, or nil for a terminator, or io.EOF where nothing follows.
func (r *Reader) next() ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r.in, length[:]); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(length[:])
	if size == terminator {
		return nil, nil
	}
	if size < smallest || size > largest {
		return nil, fmt.Errorf("corruption found in archive; %d is neither a valid bson length nor a archive terminator", size)
	}
	document := make([]byte, size)
	copy(document, length[:])
	if _, err := io.ReadFull(r.in, document[4:]); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if document[size-1] != 0 {
		return nil, errors.New("corruption found in archive; a document does not end with a null byte")
	}
	return document, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("error demultiplexing archive; archive io error: it ends in the middle of a block")
	}
	return err
}

// Blocks reads to the end. Each document goes to `each` as it comes, before the checksum that proves it can be read;
// `ended` is called for a collection whose checksum was right.
func (r *Reader) Blocks(each func(namespace string, document []byte) error, ended func(namespace string) error) error {
	for {
		document, err := r.next()
		if errors.Is(err, io.EOF) {
			return r.complete()
		}
		if err != nil {
			return cut(err)
		}
		if document == nil {
			return errors.New("corruption found in archive; consecutive terminators / headerless blocks are not allowed")
		}
		var header blockHeader
		if err := bson.Unmarshal(document, &header); err != nil {
			return fmt.Errorf("corruption found in archive; %w", err)
		}
		namespace := header.DB + "." + header.Collection
		if r.done[namespace] {
			return fmt.Errorf("corruption found in archive; `%s` goes on after its end", namespace)
		}
		if r.sums[namespace] == nil {
			r.sums[namespace] = crc64.New(polynomial)
		}
		if err := r.block(namespace, header, each); err != nil {
			return err
		}
		if header.EOF {
			r.done[namespace] = true
			if err := ended(namespace); err != nil {
				return err
			}
		}
	}
}

func (r *Reader) block(namespace string, header blockHeader, each func(string, []byte) error) error {
	sum := r.sums[namespace]
	if header.EOF && sum.Sum64() != uint64(header.CRC) {
		return fmt.Errorf("corruption found in archive; CRC mismatch for namespace `%s`, %d!=%d",
			namespace, sum.Sum64(), uint64(header.CRC))
	}
	for {
		document, err := r.next()
		if err != nil {
			return cut(err)
		}
		if document == nil {
			return nil
		}
		if header.EOF {
			return fmt.Errorf("corruption found in archive; documents after the end of `%s`", namespace)
		}
		sum.Write(document)
		if err := each(namespace, document); err != nil {
			return err
		}
	}
}

func (r *Reader) complete() error {
	for _, collection := range r.Collections {
		if !r.done[collection.Namespace()] {
			return fmt.Errorf("error demultiplexing archive; archive finished before all collections were seen (`%s`)",
				collection.Namespace())
		}
	}
	return nil
}
