// SPDX-License-Identifier: Apache-2.0

import type { Port } from '#openstack'
import type { Limits } from './lock.ts'

/**
 * What the addresses of a port need elsewhere so that they work on the node: a port that only holds addresses is on no
 * machine, and another port has to let them pass.
 */
export type PortCover = {
  /** Addresses come and go in aligned blocks of so many, a power of two. */
  readonly blockSize: number
  /**
   * Names addresses to ask for, at least `count` and at most `most`; fewer where only unnamed ones remain.
   * @throws {AllocationError} `full` where they could not be covered
   */
  choose(port: Port, subnetId: string, wanted: { count: number; most: number }, limits: Limits): Promise<string[]>
  /**
   * Makes exactly these addresses work. Called before an address is handed out, and before one leaves the port.
   * @throws {AllocationError} `full` where they do not fit
   */
  apply(addresses: readonly string[], limits: Limits): Promise<void>
  /** True if an address has been made to work. */
  covers(address: string): boolean
}
