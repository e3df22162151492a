// SPDX-License-Identifier: Apache-2.0
// The result cache, which containerd shares: items CAC of the conformance list, through cnitool with fake plugins.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { suite, test } from 'node:test'
import { cachedAttachments } from '#cni'
import { assertSilent, Bench, fail, folder, missing, peers, print } from './harness.ts'

const netns = '/run/netns/none'
// cnitool's id for that path (item TOOL-06).
const id = 'cnitool-33339a85a347a95130f9'
const name = `n-${id}-eth0`
const result = { cniVersion: '1.0.0', ips: [{ address: '10.0.0.2/24' }] }

function bench(cniVersion = '1.0.0'): Bench {
  const made = new Bench().list('n', cniVersion, ['p'])
  made.fakes.add('p', { ADD: print(result) })
  return made
}

const add = async (made: Bench, env: Record<string, string> = {}) => {
  const outcome = await made.cnitool(['add', 'n', netns], env)
  assert.equal(outcome.rc, 0, outcome.stderr)
  made.fakes.take()
}

function writeCacheFile(made: Bench, file: string, text: string): void {
  file = made.cacheFile(file)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}

const noStrace = spawnSync('strace', ['-V']).error ? 'needs strace' : false

suite('CAC result cache', { skip: missing, concurrency: 2 }, () => {
  test('CAC-01 the file is results/<network>-<container>-<interface>, for root alone', async () => {
    const made = bench()
    await add(made)
    assert.deepEqual(made.cached(), [name])
    const file = made.cacheFile(name)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    assert.equal(statSync(dirname(file)).mode & 0o777, 0o700)
  })

  test('CAC-02 it is cniCacheV1 with the list in base64', async () => {
    const made = bench()
    await add(made, { CNI_ARGS: 'K=V;L=W', CAP_ARGS: '{"ips":["10.0.0.9"]}' })
    const entry = JSON.parse(readFileSync(made.cacheFile(name), 'utf8'))
    assert.deepEqual(entry, {
      kind: 'cniCacheV1',
      containerId: id,
      config: readFileSync(join(made.confDirectory, 'n.conflist')).toString('base64'),
      ifName: 'eth0',
      networkName: 'n',
      netns,
      cniArgs: [
        ['K', 'V'],
        ['L', 'W'],
      ],
      capabilityArgs: { ips: ['10.0.0.9'] },
      result,
    })
  })

  test('CAC-02 upstream reads what we wrote, and we read what upstream wrote', {
    skip: peers ? false : 'needs lab/peers',
  }, async () => {
    const made = bench()
    const upstream = (verb: string) => made.cnitool([verb, 'n', netns], {}, { tool: [`${peers}/cnitool`] })
    const prevResult = () => JSON.parse(made.fakes.take()[0]!.stdin).prevResult
    await add(made)
    assert.equal((await upstream('check')).rc, 0)
    assert.deepEqual(prevResult(), result)
    assert.equal((await upstream('del')).rc, 0)
    assert.deepEqual([made.cached(), prevResult()], [[], result])
    assert.equal((await upstream('add')).rc, 0)
    assert.deepEqual(made.cached(), [name])
    made.fakes.take()
    assertSilent(await made.cnitool(['check', 'n', netns]))
    assert.deepEqual(prevResult(), result)
    assertSilent(await made.cnitool(['del', 'n', netns]))
    assert.deepEqual(made.cached(), [])
  })

  test('CAC-03 a bare result of an old runtime counts for CHECK and DEL', async () => {
    const made = bench()
    writeCacheFile(made, name, JSON.stringify(result))
    for (const verb of ['check', 'del']) {
      assertSilent(await made.cnitool([verb, 'n', netns]))
      assert.deepEqual(JSON.parse(made.fakes.take()[0]!.stdin).prevResult, result)
    }
    assert.deepEqual(made.cached(), [])
  })

  test('CAC-04 written after a successful ADD only, removed after a successful DEL only', async () => {
    const made = bench()
    made.fakes.add('p', { ADD: fail(100, 'no') })
    assert.equal((await made.cnitool(['add', 'n', netns])).rc, 1)
    assert.deepEqual(made.cached(), [])
    made.fakes.add('p', { ADD: print(result), DEL: fail(100, 'no') })
    await add(made)
    assert.equal((await made.cnitool(['del', 'n', netns])).rc, 1)
    assert.equal(made.cached().length, 1)
    made.fakes.add('p')
    assertSilent(await made.cnitool(['del', 'n', netns]))
    assert.deepEqual(made.cached(), [])
  })

  test('CAC-05 without a file DEL and CHECK are executed without prevResult', async () => {
    const made = bench()
    for (const verb of ['check', 'del']) {
      assertSilent(await made.cnitool([verb, 'n', netns]))
      assert.equal('prevResult' in JSON.parse(made.fakes.take()[0]!.stdin), false)
    }
  })

  test('CAC-06 a broken file: CHECK fails, DEL goes on and removes it', async () => {
    const made = bench()
    for (const text of ['', '{"kind":"cniCacheV1"', '[]']) {
      writeCacheFile(made, name, text)
      const check = await made.cnitool(['check', 'n', netns])
      assert.equal(check.rc, 1)
      assert.match(check.stderr, /cached result/)
      assert.deepEqual(made.fakes.order(), [])
      assertSilent(await made.cnitool(['del', 'n', netns]))
      assert.equal('prevResult' in JSON.parse(made.fakes.take()[0]!.stdin), false)
      assert.deepEqual(made.cached(), [])
    }
  })

  test('CAC-07 the file is synced before it takes its name, and the directory after', { skip: noStrace }, async () => {
    const made = bench()
    const trace = join(folder('trace'), 'out')
    const strace = ['strace', '-f', '-o', trace, '-e', 'trace=fsync,rename']
    const outcome = await made.cnitool(['add', 'n', netns], {}, { prefix: strace })
    assert.equal(outcome.rc, 0, outcome.stderr)
    const calls = [...readFileSync(trace, 'utf8').matchAll(/ (fsync|rename)\(/g)].map(match => match[1])
    assert.deepEqual(calls, ['fsync', 'rename', 'fsync'])
  })

  test('CAC-08 attachments are listed by container, other kinds are skipped', async () => {
    const made = bench().list('m', '1.0.0', ['p'])
    await add(made)
    assert.equal((await made.cnitool(['add', 'm', netns])).rc, 0)
    writeCacheFile(made, `x-${id}-eth0`, JSON.stringify(result))
    const found = await cachedAttachments(join(made.varLib, 'cni'), id)
    assert.deepEqual(
      found.map(each => each.network),
      ['m', 'n'],
    )
  })

  test('CAC-09 two attachments whose names give one file are told apart', async () => {
    const made = bench()
    await add(made)
    const theirs = { ...JSON.parse(readFileSync(made.cacheFile(name), 'utf8')), networkName: 'n-other' }
    writeCacheFile(made, name, JSON.stringify(theirs))
    const again = await made.cnitool(['add', 'n', netns])
    assert.equal(again.rc, 1)
    assert.match(again.stderr, /belongs to container ".*" in network "n-other"/)
    assert.deepEqual(made.fakes.order(), [])
    assertSilent(await made.cnitool(['del', 'n', netns]))
    assert.equal('prevResult' in JSON.parse(made.fakes.take()[0]!.stdin), false)
    assert.equal(made.cached().length, 1)
  })

  test('CAC-10 the result is converted to the version that the list has now', async () => {
    const made = bench()
    await add(made)
    made.list('n', '0.4.0', ['p'])
    assertSilent(await made.cnitool(['del', 'n', netns]))
    assert.deepEqual(JSON.parse(made.fakes.take()[0]!.stdin).prevResult, {
      cniVersion: '0.4.0',
      ips: [{ version: '4', address: '10.0.0.2/24' }],
      dns: {},
    })
  })
})
