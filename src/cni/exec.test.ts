// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { deadlineIn } from '#base'
import { CniError } from './error.ts'
import { type ExecOptions, execPlugin, findPlugin } from './exec.ts'

const directory = mkdtempSync(join(tmpdir(), 'cni-exec-'))
after(() => rmSync(directory, { recursive: true }))

function script(name: string, body: string): string {
  const file = join(directory, name)
  writeFileSync(file, `#!/bin/sh\n${body}\n`)
  chmodSync(file, 0o755)
  return file
}

const run = async (file: string, options: Partial<ExecOptions> = {}, stdin = '{}') =>
  new TextDecoder().decode(
    await execPlugin(file, { PATH: process.env['PATH'] ?? '', X: 'y' }, new TextEncoder().encode(stdin), {
      deadline: deadlineIn(10_000),
      signal: new AbortController().signal,
      ...options,
    }),
  )

test('execPlugin() gives stdin and environment, and keeps stderr apart', async () => {
  const file = script('echo', 'cat; echo " $X"; echo note >&2')
  let stderr = ''
  assert.equal(
    await run(
      file,
      {
        onStderr: text => {
          stderr += text
        },
      },
      '{"a":1}',
    ),
    '{"a":1} y\n',
  )
  assert.equal(stderr, 'note\n')
})

test('execPlugin() passes the error of the plugin on', async () => {
  const file = script('own', `echo '{"code":11,"msg":"later","details":"busy"}'; exit 1`)
  await assert.rejects(run(file), { code: 11, message: 'later', details: 'busy' })
})

test('execPlugin() has the words of the reference for plugins without an error of their own', async () => {
  const cases: [string, string][] = [
    ['echo oops >&2; exit 3', 'netplugin failed: "oops\\n": exit status 3'],
    ['exit 4', 'netplugin failed with no error message: exit status 4'],
    ['kill -9 $$', 'netplugin failed with no error message: signal: SIGKILL'],
  ]
  for (const [body, message] of cases) await assert.rejects(run(script('bad', body)), { code: 105, message })
  await assert.rejects(run(script('bad', 'echo nonsense; exit 1')), {
    message: /^netplugin failed but error parsing its diagnostic message "nonsense\\n": /,
  })
})

test('execPlugin() bears a plugin that does not read its stdin', async () => {
  assert.equal(await run(script('deaf', 'echo done'), {}, `"${'x'.repeat(500_000)}"`), 'done\n')
})

test('execPlugin() kills the plugin and its children when the time is over', async () => {
  const child = join(directory, 'child')
  const file = script('slow', `sh -c 'echo $$ > ${child}; sleep 60' & sleep 60`)
  const started = performance.now()
  await assert.rejects(run(file, { deadline: deadlineIn(300) }), { code: 11, message: /did not answer in time/ })
  assert.ok(performance.now() - started < 3000)
  assert.ok(await isGone(Number(readFileSync(child, 'utf8'))))
})

test('execPlugin() kills the plugin when the caller goes away', async () => {
  const caller = new AbortController()
  setTimeout(() => caller.abort(), 100)
  await assert.rejects(run(script('slow', 'sleep 60'), { signal: caller.signal }), {
    code: 11,
    message: /the caller went away/,
  })
})

test('execPlugin() stops a plugin that writes without end', async () => {
  await assert.rejects(run(script('endless', 'exec yes')), { code: 11, message: /more than 1048576 bytes/ })
})

test('execPlugin() waits for a plugin that is being replaced', async () => {
  const file = join(directory, 'busy')
  const writer = openSync(script('busy', 'echo ready'), 'r+')
  setTimeout(() => closeSync(writer), 300)
  assert.equal(await run(file), 'ready\n')
})

test('execPlugin() names a file that cannot be executed', async () => {
  const file = join(directory, 'plain')
  writeFileSync(file, '')
  chmodSync(file, 0o644)
  await assert.rejects(run(file), error => error instanceof CniError && error.message.includes(file))
})

test('execPlugin() says that there are no descriptors left', () => {
  const program = `
    import { openSync } from 'node:fs'
    import { deadlineIn } from '#base'
    import { execPlugin } from '${import.meta.dirname}/mod.ts'
    await import('node:child_process')
    const options = { deadline: deadlineIn(5000), signal: new AbortController().signal }
    try { for (;;) openSync('/dev/null') } catch {}
    await execPlugin('/bin/true', {}, new Uint8Array(), options).catch(error => console.log(error.code, error.message))`
  const limited = ['-c', 'ulimit -n 64; exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', program]
  const { stdout, stderr } = spawnSync('sh', limited, { encoding: 'utf8', cwd: import.meta.dirname })
  assert.match(stdout, /^11 Cannot start plugin .*EMFILE/, stderr)
})

test('findPlugin() takes the first regular file', async () => {
  const [first, second] = ['first', 'second'].map(name => join(directory, name)) as [string, string]
  mkdirSync(join(first, 'p'), { recursive: true })
  mkdirSync(second)
  writeFileSync(join(second, 'p'), '')
  assert.equal(await findPlugin('p', [first, second]), join(second, 'p'))
})

test('findPlugin() has the words of the reference', async () => {
  await assert.rejects(findPlugin('../x', ['/a']), { code: 7, message: 'invalid plugin name: ../x' })
  await assert.rejects(findPlugin('', ['/a']), { message: 'no plugin name provided' })
  await assert.rejects(findPlugin('x', []), { message: 'no paths provided' })
  await assert.rejects(findPlugin('x', ['/a', '/b']), { message: 'failed to find plugin "x" in path [/a /b]' })
})

/** True once no such process runs any more; who adopted it may take a moment to collect it. */
async function isGone(pid: number): Promise<boolean> {
  for (let attempt = 0; attempt < 50; attempt++) {
    if (!existsSync(`/proc/${pid}`) || / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) return true
    await sleep(20)
  }
  return false
}
