// SPDX-License-Identifier: Apache-2.0
module actor-volumes.dev/e2e/tools/csi-driver-host-path

go 1.26

require github.com/kubernetes-csi/drivers v1.0.2

require (
	github.com/container-storage-interface/spec v1.0.0 // indirect
	github.com/golang/glog v0.0.0-20160126235308-23def4e6c14b // indirect
	github.com/golang/protobuf v1.3.2 // indirect
	github.com/google/uuid v1.1.1 // indirect
	github.com/kubernetes-csi/csi-lib-utils v0.6.1 // indirect
	github.com/pborman/uuid v1.2.1 // indirect
	golang.org/x/net v0.0.0-20191004110552-13f9640d40b9 // indirect
	golang.org/x/sys v0.0.0-20190826190057-c7b8b68b1456 // indirect
	golang.org/x/text v0.3.2 // indirect
	google.golang.org/genproto v0.0.0-20190819201941-24fa4b261c55 // indirect
	google.golang.org/grpc v1.23.1 // indirect
	k8s.io/apimachinery v0.17.17 // indirect
	k8s.io/kubernetes v1.12.10 // indirect
	k8s.io/utils v0.0.0-20200603063816-c1c6865ac451 // indirect
)

replace (
	github.com/container-storage-interface/spec => github.com/container-storage-interface/spec v1.0.0
	github.com/golang/protobuf => github.com/golang/protobuf v1.3.5
	google.golang.org/genproto => google.golang.org/genproto v0.0.0-20200117163144-32f20d992d24
	google.golang.org/grpc => google.golang.org/grpc v1.26.0
)
