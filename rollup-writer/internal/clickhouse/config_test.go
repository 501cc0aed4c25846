package clickhouse

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pair writes the certificate and key of a test server as PEM files.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	c := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("tls.crt", "CERTIFICATE", c.Certificate[0]), write("tls.key", "PRIVATE KEY", der)
}

// A server that asks for a certificate is shown the configured one.
func TestClientCertificate(t *testing.T) {
	cert, key := pair(t)
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	shake := func(c Config) error {
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		tc, err := c.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", server.Listener.Addr().String(), tc)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 refuses here
		return err
	}
	c := DefaultConfig()
	c.TLS, c.TLSCA, c.TLSServerName = true, cert, "example.com"
	if err := shake(c); err == nil {
		t.Error("the server took a client without a certificate")
	}
	c.TLSCert, c.TLSKey = cert, key
	if err := shake(c); err != nil {
		t.Errorf("with a client certificate: %v", err)
	}
	c.TLSKey = ""
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "go together") {
		t.Errorf("a certificate without a key: got %v", err)
	}
	c.TLS, c.TLSKey = false, key
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "need clickhouse-tls") {
		t.Errorf("a certificate without TLS: got %v", err)
	}
}
