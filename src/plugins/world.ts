// SPDX-License-Identifier: Apache-2.0

import type { Arrivals, Journal } from '#allocator'
import type { Call, Ipam } from '#cni'
import type { Host } from '#host'
import type { CloudSessions } from './ipam/tcnp-ipam/sessions.ts'

/** What a plugin of ours may touch. Who calls it decides which world it meets: one process, the agent, a test. */
export type World = {
  readonly host: Host
  readonly journal: Journal
  /** The IPAM plugin that the configuration names: ours in process, a foreign one by exec. @throws {CniError} where there is none. */
  ipam(call: Call, type: string): Promise<Ipam>
  /** Puts back what attachments have in the firewall, where its table had to be made again. */
  restoreFirewall(): Promise<void>
  /** The clouds that are logged in to, kept between calls. */
  readonly clouds: CloudSessions
  /** Identifies this boot of the machine. */
  readonly bootId: string
  /** True in the agent, where pools and indices outlive the call. */
  readonly longLived: boolean
  /** Other processes that have begun a call; undefined in the agent, which has all calls in one. */
  readonly arrivals?: Arrivals | undefined
  /** Told what an operator should know although the call succeeds: a process says it on stderr, the agent in its log. */
  readonly warn?: ((message: string) => void) | undefined
  /** Directory of journal, locks and token cache. */
  readonly dataDir: string
}
