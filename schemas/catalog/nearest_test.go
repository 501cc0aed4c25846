package catalog

import "testing"

func TestNearestName(t *testing.T) {
	names := NewNames([]string{"item_scanned", "invoice_printed", "button_click"})
	for event, want := range map[string]string{"Scan Item": "item_scanned", "Clicked Button": "button_click", "invoicePrinted": "invoice_printed", "Something": "", "": ""} {
		if got := names.To(event); got != want {
			t.Errorf("%s: got %q, want %q", event, got, want)
		}
	}
}
