package importer

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// separator returns what stands between the columns of a CSV header, 0 for a text
// that is none.
func separator(head []byte) rune {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	best, most := rune(0), 0
	for _, c := range ",;\t" {
		if n := bytes.Count(line, []byte(string(c))); n > most {
			best, most = c, n
		}
	}
	if bytes.ContainsAny(line, "{}<>") {
		return 0
	}
	return best
}

// table reads the rows of CSV as JSON lines.
type table struct {
	rows   *csv.Reader
	header []string
	object func(row map[string]string) fields
	buf    bytes.Buffer
}

// readCSV reads the header and chooses how rows become events of the source.
func readCSV(r io.Reader, head []byte, cfg *Config) (io.Reader, error) {
	object, ok := map[string]func(map[string]string) fields{"mixpanel": mixpanelRow, "posthog": posthogRow, "csv": mapped(cfg.Map)}[cfg.From]
	if !ok {
		return nil, fmt.Errorf("is CSV, which %s does not export: use -from csv with -map", cfg.From)
	}
	t := &table{rows: csv.NewReader(r), object: object}
	t.rows.FieldsPerRecord = -1
	if t.rows.Comma = separator(head); t.rows.Comma == 0 {
		t.rows.Comma = ',' // of one column
	}
	header, err := t.rows.Read()
	if err != nil {
		return nil, fmt.Errorf("CSV header: %w", err)
	}
	for i, name := range header {
		if header[i] = strings.TrimSpace(name); slices.Contains(header[:i], header[i]) {
			return nil, fmt.Errorf("CSV header names %q twice", header[i])
		}
	}
	for field, column := range cfg.Map {
		if !slices.Contains(header, column) {
			return nil, fmt.Errorf("CSV header has no column %q, which -map names for %s; it has %s", column, field, strings.Join(header, ", "))
		}
	}
	t.header = header
	return t, nil
}

// Read implements io.Reader.
func (t *table) Read(p []byte) (int, error) {
	for t.buf.Len() == 0 {
		row, err := t.rows.Read()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		object := fields{}
		var wrong *csv.ParseError
		switch {
		case errors.As(err, &wrong):
			object.setText(unreadable, "CSV: "+err.Error())
		case err != nil:
			return 0, fmt.Errorf("CSV: %w", err)
		default:
			object = t.row(row)
		}
		text, err := object.write()
		if err != nil {
			return 0, err
		}
		t.buf.Write(text)
		t.buf.WriteByte('\n')
	}
	return t.buf.Read(p)
}

// row makes the event of a row. Cells that it lacks at its end are empty; with more
// than the header it cannot be read.
func (t *table) row(row []string) fields {
	if len(row) > len(t.header) {
		f := fields{}
		f.setText(unreadable, fmt.Sprintf("CSV: %d cells, the header has %d", len(row), len(t.header)))
		return f
	}
	cells := make(map[string]string, len(row))
	for i, cell := range row {
		if cell != "" {
			cells[t.header[i]] = cell
		}
	}
	return t.object(cells)
}

// cell returns the JSON of a property in a cell: a number or a truth value where it is
// written as JSON writes it, an object or array, or text. Of numbers with an exponent
// only those with a fraction or a sign count: 12e4 is a code as well.
func cell(text string) json.RawMessage {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	number := strings.ContainsRune("-0123456789", rune(text[0])) && (exponent == "" || strings.Contains(mantissa, ".") || strings.ContainsAny(exponent, "+-"))
	nested := text[0] == '{' || text[0] == '['
	if text == "true" || text == "false" || (number || nested) && json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	quoted, _ := json.Marshal(text) // strings always encode
	return quoted
}

// mixpanelRow makes a row of Mixpanel's event export one of its raw export: columns
// are properties by their names, or by the names that its pages show.
func mixpanelRow(row map[string]string) fields {
	shown := map[string]string{
		"event name": "event", "event": "event", "time": "time", "distinct id": "distinct_id", "insert id": "$insert_id",
		"device id": "$device_id", "user id": "$user_id", "distinct id before identity": "$distinct_id_before_identity",
	}
	f, p := fields{}, fields{}
	for column, text := range row {
		name, ok := shown[strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(column, "$"), "_", " "))]
		switch {
		case name == "event":
			f.setText(name, text)
		case ok:
			p.setText(name, text)
		default:
			p[column] = cell(text)
		}
	}
	f["properties"], _ = p.write() // of valid values
	return f
}

// posthogRow makes a row of PostHog's events one of its batch exports: columns of
// properties are called properties.NAME.
func posthogRow(row map[string]string) fields {
	f, p := fields{}, fields{}
	for column, text := range row {
		if name, ok := strings.CutPrefix(column, "properties."); ok {
			p[name] = cell(text)
		} else {
			f.setText(column, text)
		}
	}
	if len(p) > 0 {
		f.unquote("properties")
		if all, err := read(f["properties"]); err == nil {
			for name, v := range all {
				p[name] = v
			}
		}
		f["properties"], _ = p.write() // of valid values
	}
	return f
}

// mappable are the fields of a message of Segment that a mapping may name.
var mappable = []string{"type", "event", "name", "userId", "anonymousId", "groupId", "messageId", "timestamp"}

// mapped makes rows messages of Segment: the columns that the mapping names are their
// fields, the others properties.
func mapped(columns map[string]string) func(map[string]string) fields {
	return func(row map[string]string) fields {
		f, p := fields{}, fields{}
		f.setText("type", "track")
		for field, column := range columns {
			if text := row[column]; text != "" {
				f.setText(field, text)
			}
			delete(row, column)
		}
		if group := f.text("groupId"); group != "" && f.text("type") != "group" {
			f["context"], _ = fields{"groupId": f["groupId"]}.write() // of a string
			delete(f, "groupId")
		}
		for column, text := range row {
			p[column] = cell(text)
		}
		name := "properties"
		if kind := f.text("type"); kind == "identify" || kind == "group" {
			name = "traits"
		}
		f[name], _ = p.write() // of valid values
		return f
	}
}
