package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// site is a registry on a free port of this machine's own.
type site struct {
	host   string // 127.0.0.1:port
	writes atomic.Int64
	server *http.Server
	done   chan struct{} // closed when the server has ended
}

// startOutside starts the registry of the connected site.
func startOutside(dir string, p *pace) (*site, error) {
	h, err := newRegistry(dir)
	if err != nil {
		return nil, err
	}
	return startSite(h, p)
}

// startInside starts the registry of the site behind the gap, with the front
// of a Harbor.
func startInside(dir string, p *pace) (*site, *harborFront, error) {
	h, err := newRegistry(dir)
	if err != nil {
		return nil, nil, err
	}
	front := newHarborFront(h)
	s, err := startSite(front, p)
	return s, front, err
}

// newRegistry returns go-containerregistry's registry, with its blobs in dir.
func newRegistry(dir string) (http.Handler, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)),
		registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))), nil
}

func startSite(h http.Handler, p *pace) (*site, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{host: listener.Addr().String(), done: make(chan struct{})}
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/") && r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.writes.Add(1)
		}
		h.ServeHTTP(w, r)
	})}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(pacedListener{listener, p}); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("the registry %s ended: %v", s.host, err)
		}
	}()
	return s, nil
}

// stop ends the server and awaits it.
func (s *site) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		s.server.Close()
	}
	<-s.done
}
