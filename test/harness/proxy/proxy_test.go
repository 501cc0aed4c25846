package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// echo is a server that sends back what it gets and keeps it.
func echo(t *testing.T) (addr string, got func() []byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan []byte, 100)
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer c.Close()
				var b bytes.Buffer
				_, _ = io.Copy(io.MultiWriter(&b, c), c)
				all <- b.Bytes()
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String(), func() []byte { return <-all }
}

func start(t *testing.T, target string) *Proxy {
	t.Helper()
	p, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

func payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestPassesEverythingBothWays(t *testing.T) {
	addr, got := echo(t)
	c := dial(t, start(t, addr))
	want := payload(300_000)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	back, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(back, want) || !bytes.Equal(got(), want) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
}

func TestCutAtAnExactByteOnTheWayThere(t *testing.T) {
	addr, got := echo(t)
	p := start(t, addr)
	for _, after := range []int64{0, 1, 777, 40_000} {
		c := dial(t, p)
		f := p.Arm(Fault{Direction: ToServer, After: after, Action: Cut})
		_, _ = c.Write(payload(50_000))
		<-f.Fired()
		if n := len(got()); n != int(after) {
			// A reset may take bytes with it that the server had not read.
			if n > int(after) {
				t.Errorf("cut after %d: the server got %d", after, n)
			}
		}
		if _, err := io.ReadAll(c); err == nil {
			t.Errorf("cut after %d: the client saw a good end", after)
		}
	}
}

func TestCutAtAnExactByteOnTheWayBack(t *testing.T) {
	addr, _ := echo(t)
	p := start(t, addr)
	c := dial(t, p)
	f := p.Arm(Fault{Direction: ToClient, After: 5, Action: Cut})
	if _, err := c.Write(payload(5)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{9}); err != nil {
		t.Fatal(err)
	}
	<-f.Fired()
	if n, err := c.Read(head); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v after the cut", n, err)
	}
}

func TestSwallowLetsTheWorkBeDone(t *testing.T) {
	addr, got := echo(t)
	p := start(t, addr)
	c := dial(t, p)
	f := p.Arm(Fault{Direction: ToClient, After: 0, Action: Swallow, For: 50 * time.Millisecond})
	if _, err := c.Write(payload(1000)); err != nil {
		t.Fatal(err)
	}
	<-f.Fired()
	if n, err := c.Read(make([]byte, 10)); err == nil || n > 0 {
		t.Errorf("the client read %d bytes of a swallowed answer, %v", n, err)
	}
	if n := len(got()); n != 1000 {
		t.Errorf("the server got %d of 1000 bytes", n)
	}
}

func TestHoldAndRefuse(t *testing.T) {
	addr, _ := echo(t)
	p := start(t, addr)
	c := dial(t, p)
	p.Hold(true)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a byte passed a proxy that holds")
	}
	p.Hold(false)
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("the byte did not come after the hold: %v", err)
	}
	p.Refuse(true)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection lived on through Refuse")
	}
	if d, err := net.Dial("tcp", p.Addr()); err == nil { // else it was reset already
		if _, err := d.Read(make([]byte, 1)); err == nil {
			t.Error("a refused connection was served")
		}
		d.Close()
	}
	p.Refuse(false)
	e := dial(t, p)
	if _, err := e.Write([]byte("y")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Read(make([]byte, 1)); err != nil {
		t.Errorf("not served after Refuse was turned off: %v", err)
	}
}
