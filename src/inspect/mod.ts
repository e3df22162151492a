// SPDX-License-Identifier: Apache-2.0

// inspect: what an operator looks at, and does, by hand: a container's network on one page, NICs moved to and fro, and
// whose the ports and addresses in the cloud are. Reads what other rooms know; changes nothing but what the command names.

export { formatLeases, formatPools } from './addresses-page.ts'
export { type Lease, listLeases } from './leases.ts'
export { type NetworksOptions, readPluginConfigs } from './networks.ts'
export { bringNicBack, giveNicAway } from './nic.ts'
export { formatReport } from './page.ts'
export { type PoolReport, type QuotaReport, readPools } from './pools.ts'
export { hasPortFaults, type PortsReport } from './ports.ts'
export { formatPorts } from './ports-page.ts'
export { ADOPTED_COOL_DOWN_MS, endQuarantine } from './quarantine.ts'
export { type PortsOptions, readPorts } from './read-ports.ts'
export { hasFaults, inspectTarget, type Report } from './report.ts'
export { type Reserved, type ReserveOptions, reserveAhead } from './reserve.ts'
export { containerOf, openTarget, type Target } from './target.ts'
