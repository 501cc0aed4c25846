package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups returns a channel that receives a value for each SIGHUP, and a function that
// stops it. Signals that arrive while one is pending are merged with it.
func hangups() (<-chan struct{}, func()) {
	in := make(chan os.Signal, 1)
	out := make(chan struct{}, 1)
	quit := make(chan struct{})
	signal.Notify(in, syscall.SIGHUP)
	go func() { // ends with the returned function
		for {
			select {
			case <-in:
				select {
				case out <- struct{}{}:
				default:
				}
			case <-quit:
				return
			}
		}
	}()
	return out, func() { signal.Stop(in); close(quit) }
}
