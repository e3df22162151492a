// SPDX-License-Identifier: Apache-2.0
// Executing plugins and delegates: items EXE and DLG of the conformance list.
import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  assertSilent,
  Bench,
  errorOf,
  execute,
  Fakes,
  fail,
  folder,
  leftovers,
  missing,
  print,
  resultOf,
  routedPod,
} from './harness.ts'

const gone = '/run/netns/none'

/** The message of a failed `cnitool add` with this shell as the plugin. */
async function failure(shell: string): Promise<string> {
  const bench = new Bench().list('n', '1.0.0', ['p'])
  bench.fakes.add('p', { ADD: shell })
  const outcome = await bench.cnitool(['add', 'n', gone])
  assert.equal(outcome.rc, 1)
  assert.deepEqual(bench.cached(), [])
  return outcome.stderr
}

/** The process whose id stands in the file runs no more; who adopted it may take a moment to collect it. */
async function assertGone(file: string): Promise<void> {
  await sleep(100)
  const status = `/proc/${readFileSync(file, 'utf8').trim()}/stat`
  assert.ok(!existsSync(status) || / Z /.test(readFileSync(status, 'utf8')))
}

suite('EXE executing plugins', { skip: missing }, () => {
  test('EXE-01 the first regular file on CNI_PATH is taken, whatever its mode', async () => {
    const [first, second] = [new Bench().list('n', '1.0.0', ['p']), new Fakes().add('p')]
    first.fakes.add('p')
    const both = { CNI_PATH: `${folder('empty')}:${first.fakes.directory}:${second.directory}` }
    assert.equal((await first.cnitool(['add', 'n', gone], both)).rc, 0)
    assert.deepEqual([first.fakes.order(), second.order()], [['p ADD'], []])
    chmodSync(join(first.fakes.directory, 'p'), 0o644)
    const refused = await first.cnitool(['del', 'n', gone], both)
    assert.equal(refused.rc, 1)
    assert.match(refused.stderr, /permission denied/i)
  })

  test('EXE-01 names with /, missing plugins and an empty path have their own texts', async () => {
    const stderr = async (type: string, path?: string) => {
      const bench = new Bench().list('n', '1.0.0', [type])
      const outcome = await bench.cnitool(['add', 'n', gone], path === undefined ? {} : { CNI_PATH: path })
      assert.equal(outcome.rc, 1)
      return outcome.stderr
    }
    assert.match(await stderr('../x'), /invalid plugin name: \.\.\/x/)
    assert.match(await stderr('x', '/a:/b'), /failed to find plugin "x" in path \[\/a \/b\]/)
    assert.match(await stderr('x', ''), /no paths provided/)
  })

  test('EXE-02 the plugin gets the environment with its CNI variables replaced', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    bench.fakes.add('p')
    await bench.cnitool(['add', 'n', gone], { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'x', CNI_NETNS: 'x', OTHER: 'kept' })
    const { env } = bench.fakes.take()[0]!
    assert.deepEqual(
      [env['CNI_COMMAND'], env['CNI_NETNS'], env['CNI_IFNAME'], env['CNI_PATH'], env['CNI_ARGS'], env['OTHER']],
      ['ADD', gone, 'eth0', bench.fakes.directory, '', 'kept'],
    )
    assert.match(env['CNI_CONTAINERID'] ?? '', /^cnitool-/)
  })

  test('EXE-03 a plugin that is being replaced is tried again', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    bench.fakes.add('p')
    const busy = join(bench.fakes.directory, 'p')
    const writer = execute(['sh', '-c', `exec 3<> ${busy}; sleep 1.2`], { env: { PATH: '/usr/bin:/bin' } })
    await sleep(200)
    assert.equal((await bench.cnitool(['add', 'n', gone])).rc, 0)
    await writer
  })

  test('EXE-04 the four ways in which a plugin fails', async () => {
    assert.match(await failure(fail(11, 'later', 'busy')), /failed \(add\): later; busy/)
    assert.match(await failure('echo oops >&2; exit 3'), /netplugin failed: "oops\\n"/)
    assert.match(await failure('exit 4'), /netplugin failed with no error message: exit status 4/)
    assert.match(
      await failure('echo nonsense; exit 1'),
      /netplugin failed but error parsing its diagnostic message "nonsense\\n"/,
    )
  })

  test('EXE-05 exit code 0 with something else than a result is a failure that names the plugin', async () => {
    for (const shell of ["echo '{'", 'true', 'echo []', `echo '{"ips":[{"address":"x"}]}'`])
      assert.match(await failure(shell), /"p"/)
  })

  test('EXE-06 stderr of the plugin is forwarded, stdout has the result alone', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    bench.fakes.add('p', { ADD: `echo note >&2; ${print({ ips: [{ address: '10.0.0.2/24' }] })}` })
    const outcome = await bench.cnitool(['add', 'n', gone])
    assert.deepEqual(resultOf(outcome).ips, [{ address: '10.0.0.2/24' }])
    assert.match(outcome.stderr, /note/)
  })

  test('EXE-07 a plugin that does not answer in time is killed with its children', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    const child = join(folder('pid'), 'child')
    bench.fakes.add('p', { ADD: `sh -c 'echo $$ > ${child}; exec sleep 60' &\nsleep 60` })
    // Time enough for the child to tell its number, also on a machine that is busy.
    const outcome = await bench.cnitool(['add', '--timeout', '3', 'n', gone])
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /did not answer in time/)
    assert.ok(outcome.ms < 10_000)
    await assertGone(child)
  })

  test('EXE-07 an interrupt of cnitool stops the plugin with its children', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    const child = join(folder('pid'), 'child')
    bench.fakes.add('p', { ADD: `sh -c 'echo $$ > ${child}; exec sleep 60' &\nsleep 60` })
    // The shell stands for the terminal: it signals cnitool alone.
    const interrupt = [
      'sh',
      '-c',
      `"$@" & tool=$!; while [ ! -s ${child} ]; do sleep 0.05; done; kill -INT $tool; wait $tool`,
      'sh',
    ]
    const outcome = await bench.cnitool(['add', 'n', gone], {}, { prefix: interrupt })
    assert.equal(outcome.rc, 1)
    assert.match(outcome.stderr, /the caller went away/)
    await assertGone(child)
  })

  test('EXE-08 an active trace reaches the plugin', async () => {
    const bench = new Bench().list('n', '1.0.0', ['p'])
    bench.fakes.add('p')
    const trace = {
      TRACEPARENT: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      TRACESTATE: 'a=b',
      BAGGAGE: 'c=d',
    }
    await bench.cnitool(['add', 'n', gone], trace)
    const { env } = bench.fakes.take()[0]!
    for (const [name, value] of Object.entries(trace)) assert.equal(env[name], value)
  })
})

suite('DLG delegation of veth-route to IPAM plugins', { skip: missing, concurrency: 2 }, () => {
  const address = { ips: [{ address: '10.66.0.2/24', gateway: '10.66.0.1' }] }
  const attachment = (ipam: Record<string, string>) =>
    routedPod({ ADD: print({ cniVersion: '1.1.0', ...address }), ...ipam }, { ipam: { type: 'fake-ipam', x: 1 } })

  test('DLG-01 the delegate gets the same stdin and environment and the same verb', async () => {
    const { containerId, fakes, config, call } = attachment({})
    resultOf(await call('ADD', { env: { CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=x', TRACEPARENT: '00-1-2-01' } }))
    const [seen] = fakes.take()
    assert.equal(seen?.stdin, config)
    assert.deepEqual(
      [seen?.verb, seen?.env['CNI_ARGS'], seen?.env['CNI_CONTAINERID'], seen?.env['TRACEPARENT']],
      ['ADD', 'IgnoreUnknown=1;K8S_POD_NAME=x', containerId, '00-1-2-01'],
    )
    assertSilent(await call('DEL'))
  })

  test('DLG-02 DEL, CHECK, GC and STATUS reach the delegate, VERSION does not', async () => {
    const { fakes, config, call } = attachment({})
    const result = resultOf(await call('ADD'))
    const withResult = JSON.stringify({ ...JSON.parse(config), prevResult: result })
    assertSilent(await call('CHECK', { config: withResult }))
    assertSilent(await call('STATUS'))
    assertSilent(
      await call('GC', { config: JSON.stringify({ ...JSON.parse(config), 'cni.dev/valid-attachments': [] }) }),
    )
    await call('VERSION')
    assertSilent(await call('DEL'))
    assert.deepEqual(
      [...new Set(fakes.order())].sort(),
      ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS'].map(verb => `fake-ipam ${verb}`),
    )
  })

  test('DLG-03 a failure after the delegate took an address gives it back', async () => {
    const { node, container, fakes, call } = attachment({})
    await execute(['ip', '-n', container.name, 'link', 'add', 'eth0', 'type', 'bridge'], {
      env: { PATH: process.env['PATH'] ?? '' },
    })
    const before = leftovers([container.name])
    errorOf(await call('ADD'))
    assert.deepEqual(fakes.order(), ['fake-ipam ADD', 'fake-ipam DEL'])
    assert.equal(leftovers([container.name]), before)
    assert.doesNotMatch(leftovers([node.name]), /10\.66\.0\.2/)
  })

  test('DLG-04 DEL reaches the delegate although the namespace is gone', async () => {
    const { fakes, call } = attachment({})
    resultOf(await call('ADD'))
    fakes.take()
    for (const path of ['/run/netns/none', '']) {
      assertSilent(await call('DEL', { env: { CNI_NETNS: path } }))
      assert.deepEqual(fakes.order(), ['fake-ipam DEL'])
    }
  })

  test('DLG-05 an IPAM plugin that gives no address is an error, and gets a DEL', async () => {
    const { node, fakes, call } = attachment({ ADD: print({ cniVersion: '1.1.0', ips: [] }) })
    const error = errorOf(await call('ADD'))
    assert.match(error.msg, /IPAM plugin returned missing IP config/)
    assert.deepEqual(fakes.order(), ['fake-ipam ADD', 'fake-ipam DEL'])
    assert.doesNotMatch(leftovers([node.name]), /veth/)
  })

  test("DLG-06 another's program under the name of one of ours wins if it comes first on CNI_PATH", async () => {
    const { fakes, config, call } = attachment({})
    fakes.add('host-local', { ADD: print(address) })
    const named = JSON.stringify({
      ...JSON.parse(config),
      ipam: { type: 'host-local', subnet: '10.9.0.0/24', dataDir: folder('data') },
    })
    assert.equal(resultOf(await call('ADD', { config: named })).ips[0].address.split('/')[0], '10.66.0.2')
    assert.deepEqual(fakes.order(), ['host-local ADD'])
    assertSilent(await call('DEL', { config: named }))
  })

  test('ERR-16 the error of the delegate passes through as it is', async () => {
    const { call } = attachment({ ADD: fail(11, 'try again', 'no address yet') })
    const { code, msg, details } = errorOf(await call('ADD'))
    assert.deepEqual([code, msg, details], [11, 'try again', 'no address yet'])
  })

  test('RES-14 an index of the IPAM plugin that points nowhere is an error, and nothing is left', async () => {
    const { node, fakes, call } = attachment({
      ADD: print({ cniVersion: '1.1.0', ips: [{ ...address.ips[0], interface: 0 }] }),
    })
    errorOf(await call('ADD'))
    assert.doesNotMatch(leftovers([node.name]), /veth/)
    assert.ok(fakes.order().includes('fake-ipam DEL'))
  })
})
