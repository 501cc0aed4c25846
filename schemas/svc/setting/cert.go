package setting

import (
	"crypto/x509"
	"fmt"
	"os"
)

// CertPool reads the certificates in PEM of the file that a setting names.
func CertPool(setting, path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s %s holds no PEM certificate", setting, path)
	}
	return pool, nil
}
