// SPDX-License-Identifier: Apache-2.0

// A pool on a port that is made up, for its tests.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { type Journal, openJournal } from '../journal.ts'
import type { FakePort } from './fake-port.ts'
import type { Owner } from './plan.ts'
import { openPortPool, type PortPoolOptions } from './pool.ts'
import { listIntents } from './port-store.ts'
import { listPortAddresses } from './store.ts'
import { listWants } from './want-store.ts'

/** Whom an address is for. */
export const owner = (id: number | string): Owner => ({ network: 'n', containerId: `c${id}`, ifName: 'eth0' })
/** Limits of a call, in milliseconds. */
export const soon = (ms = 5_000) => ({ deadline: deadlineIn(ms) })

export const S4 = [{ subnetIds: ['s4'] }]
export const S6 = [{ subnetIds: ['s6'] }]

/** What is other than usual. */
export type Setup = Partial<PortPoolOptions> & { reserve?: number; coolDownMs?: number; usableAfterMs?: number }

/** A directory for a journal; it goes with the process. */
export function directoryFor(): string {
  const directory = mkdtempSync(join(tmpdir(), 'mooring-pool-'))
  // At the very end: hooks run in the order in which they were made, and a pool that is closed later makes its lock anew.
  process.setMaxListeners(0).once('exit', () => rmSync(directory, { recursive: true }))
  return directory
}

/** A pool of one port, as one process has it; closed with the test. */
export function poolOn(t: TestContext, directory: string, port: FakePort, setup: Setup = {}) {
  const { reserve = 0, coolDownMs = 0, usableAfterMs = 0, ...more } = setup
  const journal = more.journal ?? openJournal(directory)
  const pool = openPortPool({
    journal,
    portId: port.id,
    bootId: 'boot-1',
    longLived: true,
    access: '{}',
    neutron: async () => port,
    settings: { subnetIds: ['s4'], reserve, coolDownMs, usableAfterMs, lockDirectory: directory },
    ...more,
  })
  t.after(async () => {
    await pool.close()
    journal[Symbol.dispose]()
  })
  return { journal, pool }
}

/** State by address. */
export const states = (journal: Journal, port: FakePort): Record<string, string> =>
  Object.fromEntries(listPortAddresses(journal, port.id).map(each => [each.address, each.state]))

/** Neutron's list is the journal's, nothing is counted twice, and nothing is open. */
export function assertSettled(journal: Journal, port: FakePort): void {
  assert.deepEqual(Object.keys(states(journal, port)).sort(), port.addresses().sort())
  assert.deepEqual(listIntents(journal, port.id), [])
  assert.deepEqual(listWants(journal, port.id), [])
}

/** Waits, up to three seconds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (condition()) return
    await sleep(10)
  }
  assert.fail(`${what} did not come true`)
}
