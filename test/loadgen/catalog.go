package loadgen

// Event names of the sample catalog.
const (
	ItemScanned      = "Item Scanned"
	ItemInvoiced     = "Item Invoiced"
	ItemBagged       = "Item Bagged"
	InvoiceGenerated = "Invoice Generated"
	InvoicePrinted   = "Invoice Printed"
	PaymentReceived  = "Payment Received"
	RefundProcessed  = "Refund Processed"
	LoyaltyOptIn     = "Loyalty program opt-in"
)

// Place is where a feature belongs.
type Place struct{ Feature, Module, Product string }

// places is what the sample catalog says of each event name. It is written down
// here once more, by hand, so that a fault in the catalog's parser or matcher
// shows.
var places = map[string]Place{
	ItemScanned:      {"item_scanned", "billing", "mypos_sales"},
	ItemInvoiced:     {"item_invoiced", "billing", "mypos_sales"},
	ItemBagged:       {"item_bagged", "billing", "mypos_sales"},
	InvoiceGenerated: {"invoice_generated", "invoicing", "mypos_sales"},
	InvoicePrinted:   {"invoice_printed", "invoicing", "mypos_sales"},
	PaymentReceived:  {"payment_received", "payments", "mypos_commerce"},
	RefundProcessed:  {"refund_processed", "payments", "mypos_commerce"},
	LoyaltyOptIn:     {"loyalty_program_opt_in", "loyalty", "mypos_engage"},
}

// aliases are other names of the same features.
var aliases = map[string][]string{
	ItemScanned:      {"Scanned Item", "item_scanned", "itemScanned", "barcode_scan"},
	ItemInvoiced:     {"item_invoiced", "itemInvoiced"},
	ItemBagged:       {"item_bagged", "itemBagged"},
	InvoiceGenerated: {"Generated Invoice", "invoice_generated", "invoiceCreated"},
	InvoicePrinted:   {"invoice_printed", "print_invoice"},
	PaymentReceived:  {"payment_received", "Received Payment"},
	RefundProcessed:  {"refund_processed", "Processed Refund"},
	LoyaltyOptIn:     {"loyalty_program_opt_in", "Loyalty Opt-In", "loyaltyOptIn"},
}

// unmapped are names that the catalog does not have.
var unmapped = []string{"Drawer Opened", "till_self_test", "Price Looked Up"}

// PlaceOf returns where an event name belongs; the zero Place is unmapped.
func PlaceOf(name string) Place {
	if p, ok := places[name]; ok {
		return p
	}
	for main, others := range aliases {
		for _, o := range others {
			if o == name {
				return places[main]
			}
		}
	}
	return Place{}
}
