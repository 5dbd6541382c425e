package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// countAgain imports once more into the full target, through a proxy that
// counts, and returns the requests for each image.
func (l *lab) countAgain(ctx context.Context) (float64, error) {
	target, err := l.fullTarget(ctx)
	if err != nil {
		return 0, err
	}
	input, err := l.inputOf(ctx, "ferry")
	if err != nil {
		return 0, err
	}
	var requests atomic.Int64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: target.host})
			p.Out.Host = p.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	front := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		proxy.ServeHTTP(w, r)
	})}
	go front.Serve(listener)
	defer front.Close()
	_, err = l.measure(ctx, ferryImport(l, bundleIn(input), listener.Addr().String()))
	return float64(requests.Load()) / float64(len(l.plan.images())), err
}
