// SPDX-License-Identifier: Apache-2.0

import { formatIp, parseIp } from '#base'
import { formatPorts, hasPortFaults, type NetworksOptions, readPorts } from '#inspect'
import { limitsOf } from './command.ts'
import { journalWarnings, type NodeOptions, openNode } from './node.ts'

export type PortsArguments = NodeOptions &
  NetworksOptions & {
    readonly cloud?: string | undefined
    readonly server: readonly string[]
    readonly withoutPrimary: boolean
    readonly json: boolean
    /** Seconds for all of it. */
    readonly timeout: string
  }

export type PortsPage = {
  readonly lines: readonly string[]
  readonly warnings: readonly string[]
  /** False where Neutron, Nova and the journal differ. */
  readonly complete: boolean
}

/** Shows what Neutron and Nova hold for this node, or for servers, and whose it is. @throws {Error} where no cloud can be asked */
export async function showPorts(options: PortsArguments): Promise<PortsPage> {
  const limits = limitsOf(options.timeout, 'look at ports')
  const addresses = options.server.map(text => formatIp(parseIp(text)))
  await using node = openNode(options)
  const { report, warnings } = await readPorts(node, { ...options, addresses }, limits)
  const lines = options.json ? [JSON.stringify(report, undefined, 2)] : formatPorts(report)
  return { lines, warnings: [...journalWarnings(node, options), ...warnings], complete: !hasPortFaults(report) }
}
