// SPDX-License-Identifier: Apache-2.0

// libc: the only FFI in the repository: system calls that Node.js does not offer (netlink sockets, setns, flock,
// peer credentials, bind mounts). One function per call, errors with errno, no policy. A new call belongs here only
// if `node:fs` and `node:net` have none for it.

export * from './error.ts'
export * from './libc.ts'
