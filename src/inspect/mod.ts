// SPDX-License-Identifier: Apache-2.0

// inspect: what an operator looks at, and does, by hand: a container's network on one page, NICs moved to and fro, and
// whose the ports and addresses in the cloud are. Reads what other rooms know; changes nothing but what the command names.

export { type Lease, listLeases } from './leases.ts'
export type { NetworksOptions } from './networks.ts'
export { bringNicBack, giveNicAway } from './nic.ts'
export { formatReport } from './page.ts'
export { hasPortFaults, type PortsReport } from './ports.ts'
export { formatPorts } from './ports-page.ts'
export { type PortsOptions, readPorts } from './read-ports.ts'
export { hasFaults, inspectTarget, type Report } from './report.ts'
export { containerOf, openTarget, type Target } from './target.ts'
