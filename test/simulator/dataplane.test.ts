// SPDX-License-Identifier: Apache-2.0

/** The data plane as a user meets it: it comes, it goes, and the machine is as before. Needs root. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startSimulator } from '#simulator'
import { openStation } from '../contract/station.ts'

const launcher = join(import.meta.dirname, '../../mooring')
const prefix = `mrd${process.pid}`
const reason = process.getuid?.() === 0 ? undefined : 'needs root, for network namespaces'

const namespaces = (): string[] =>
  existsSync('/run/netns') ? readdirSync('/run/netns').filter(name => name.startsWith(`${prefix}-`)) : []
const links = (): string[] => readdirSync('/sys/class/net').sort()

async function until(isSo: () => boolean, what: string): Promise<void> {
  for (const endMs = performance.now() + 20_000; !isSo(); await sleep(20)) {
    assert.ok(performance.now() < endMs, what)
  }
}

async function startCommand(directory: string): Promise<ChildProcess> {
  const ids = join(directory, 'demo.json')
  const args = ['simulator', '--dataplane', prefix, '--demo-json', ids, '--clouds-yaml', join(directory, 'clouds.yaml')]
  const child = spawn(launcher, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  await until(() => existsSync(ids), 'the ids are written when it is ready')
  return child
}

describe('data plane of the simulator', { skip: reason ?? false }, () => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`mooring simulator --dataplane: ${signal} leaves no namespace, link or file`, async () => {
      const directory = mkdtempSync(join(tmpdir(), 'simulator-test-'))
      const before = links()
      try {
        const child = await startCommand(directory)
        assert.deepEqual(
          namespaces().sort(),
          ['fabric', 'outside', 'router-edge', 'vm-worker-1', 'vm-worker-2'].map(name => `${prefix}-${name}`),
        )
        const exit = once(child, 'exit')
        child.kill(signal)
        assert.deepEqual(await exit, [0, null])
        assert.deepEqual(namespaces(), [])
        assert.deepEqual(links(), before)
      } finally {
        rmSync(directory, { recursive: true })
      }
    })
  }

  test('the API is reachable inside a server, at the address that it has outside', async () => {
    await using simulator = await startSimulator({ dataplane: prefix })
    const station = await openStation(`${prefix}-vm-worker-2`)
    try {
      assert.equal(await station.fetch(simulator.authUrl), 200)
    } finally {
      await station.close()
    }
  })

  test('reset: the servers are there anew, and packets pass', async () => {
    await using simulator = await startSimulator({ dataplane: prefix, wireDelayMs: 50 })
    simulator.reset()
    await sleep(300)
    const one = await openStation(`${prefix}-vm-worker-1`)
    const two = await openStation(`${prefix}-vm-worker-2`)
    try {
      const port = simulator.demo().servers['worker-1']!.ports[0]!
      assert.ok((await one.links()).some(link => link.name === 'eth0' && link.mac === port.mac))
      assert.equal(await one.ask('10.10.10.12'), '10.10.10.11')
    } finally {
      await Promise.all([one.close(), two.close()])
    }
  })

  test('a prefix that is in use is refused, and what is there stays', async () => {
    await using simulator = await startSimulator({ dataplane: prefix, servers: 1 })
    const before = namespaces()
    await assert.rejects(startSimulator({ dataplane: prefix }), /are there already, of another simulator/)
    assert.deepEqual(namespaces(), before)
    assert.equal((await fetch(simulator.authUrl)).status, 200)
  })

  test('the root namespace keeps its forwarding setting', async () => {
    const path = '/proc/sys/net/ipv4/ip_forward'
    const before = readFileSync(path, 'utf8')
    await (await startSimulator({ dataplane: prefix })).close()
    assert.equal(readFileSync(path, 'utf8'), before)
  })
})
