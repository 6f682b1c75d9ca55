// SPDX-License-Identifier: Apache-2.0

// Kubernetes' own mock of a CSI driver, served on a unix socket: upstream has
// it as a library of its storage tests alone, so that the few lines which start
// it stand here.
package main

import (
	"flag"
	"net"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/driver"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/mock/service"
)

func main() {
	endpoint := flag.String("endpoint", "", "path of the socket to serve on")
	config := service.Config{IO: service.OSDirIO{}}
	flag.StringVar(&config.DriverName, "name", service.Name, "name of the driver")
	flag.Int64Var(&config.AttachLimit, "attach-limit", 0, "volumes that a node may have, 0 for no limit")
	flag.BoolVar(&config.NodeExpansionRequired, "node-expand-required", false, "expansion needs the node as well")
	flag.BoolVar(&config.DisableOnlineExpansion, "disable-online-expansion", false, "an attached volume is not expanded")
	klog.InitFlags(nil)
	flag.Parse()

	listener, err := net.Listen("unix", *endpoint)
	if err != nil {
		klog.Fatalf("cannot listen on %q: %v", *endpoint, err)
	}
	mock := service.New(config)
	served := driver.NewCSIDriver(&driver.CSIDriverServers{Controller: mock, Identity: mock, Node: mock})
	if err := served.Start(listener, nil); err != nil {
		klog.Fatalf("cannot serve on %q: %v", *endpoint, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	served.Stop()
}
